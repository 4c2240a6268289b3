"""Test the page /docs in Chromium, without access to other servers."""

from tests.conftest import app, serving


def test_the_api_reference_is_shown_without_internet_access(browser):
    with serving(app()) as url, browser.new_context() as context:
        context.route(lambda address: not address.startswith(url), lambda route: route.abort())
        page, problems = context.new_page(), []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("requestfailed", lambda request: problems.append(request.url))
        page.goto(f"{url}/docs")
        page.get_by_text("Transcribe a recording", exact=True).wait_for()
        with context.expect_page() as opened:
            page.get_by_role("link", name="errors").click()
        opened.value.get_by_role("heading", name="origin_not_allowed").wait_for()
        assert problems == []
