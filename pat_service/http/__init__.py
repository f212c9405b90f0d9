"""What every HTTP answer has in common: problems, limits, authentication, headers, request ids."""
