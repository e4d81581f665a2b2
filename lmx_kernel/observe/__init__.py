"""Events, logs, statistics, status and monitors."""
