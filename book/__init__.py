"""The book's own tools: they run the chapters and render the pages. Not part of the installed package."""
