"""`python -m infra.docs` writes the generated pages. `make docs` runs it."""

from infra.docs.pages import ROOT, pages


def main() -> None:
    for path, content in pages().items():
        (ROOT / path).write_text(content)


if __name__ == "__main__":
    main()
