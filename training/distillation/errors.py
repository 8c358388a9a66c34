"""What can be wrong with a distillation beside its data."""


class TeacherError(ValueError):
    """A teacher is not there, or is none that is known or fits."""
