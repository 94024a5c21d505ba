"""What a step raises when the user can mend it."""


class StepError(Exception):
    """One clear line: what is wrong, where, and what to do. Never carries a text of the records."""


class Terminated(BaseException):
    """The step was asked to stop (SIGTERM or Ctrl-C). Not an Exception: nothing may swallow it."""
