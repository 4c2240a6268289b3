"""Lists the generated pages."""

from pathlib import Path

from infra.docs import api, errors, models, settings

ROOT = Path(__file__).parent.parent.parent


def pages() -> dict[str, str]:
    """Return the contents of all generated pages by their paths."""
    return {
        "docs/reference/api.md": api.render(),
        "docs/reference/errors.md": errors.render(),
        "docs/reference/models.md": models.render(),
        "docs/reference/settings.md": settings.render_settings(),
        "docs/reference/deploy-options.md": settings.render_options(),
        "handler/web/page/errors.html": errors.render_html(),
    }
