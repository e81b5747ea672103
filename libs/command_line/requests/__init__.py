"""Commands about requests and their clips: submit, list, cancel, retry, fetch, share, trace."""
