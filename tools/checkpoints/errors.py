"""What can go wrong, with the exit codes of the pipeline."""


class ConversionError(Exception):
    exit_code = 70


class UsageError(ConversionError):
    exit_code = 64


class DataError(ConversionError):
    """A file is damaged, or not what its key map promises."""

    exit_code = 65

    def __init__(self, path, problem):
        super().__init__(f"{path}: {problem}")


class MissingInput(DataError):
    exit_code = 66


class OutputConflict(DataError):
    exit_code = 73
