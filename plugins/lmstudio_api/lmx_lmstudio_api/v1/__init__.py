"""``/api/v1``: models, downloads, and chats that the server keeps."""
