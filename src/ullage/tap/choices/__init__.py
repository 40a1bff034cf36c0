"""One output as it grows: pulled from the server, or the reference's with the server's drafts."""
