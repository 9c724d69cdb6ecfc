"""The workers: they claim a job, call one function of the library and store what it returns."""
