"""Generated question-answering data: names, templates, passages and questions."""
