"""``lms``: the commands of LM Studio's command line that scripts and agents call, for LMX."""
