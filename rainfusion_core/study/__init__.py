"""What `rf ablate` and `rf inspect` measure: captured calls, recall, error, head types, intervals."""
