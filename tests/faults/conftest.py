"""The script is started by its test, in a process of its own."""

collect_ignore = ["kill_and_resume.py"]  # importing it for doctests would set the number of threads for all tests
