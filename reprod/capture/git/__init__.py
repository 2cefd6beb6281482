"""What a repository of the user's code is, read by git in the user's own process."""
