"""Reports: the same summary of the same rows, as a page, as Markdown, as JSON and in the terminal."""
