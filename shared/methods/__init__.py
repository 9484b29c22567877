"""One module per chapter, read from top to bottom as the method's story, and beside them what a story draws on."""
