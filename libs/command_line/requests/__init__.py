"""Commands about requests and their clips: poses, submit, list, cancel, retry, fetch, share, trace."""
