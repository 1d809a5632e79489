"""Every error a user can meet: one sentence with the thing, what was expected, what was found, what to do."""


class SeedVR2Error(Exception):
    """Base of the errors that are shown to the user as one sentence, without a traceback."""


class InvalidArgumentError(SeedVR2Error, ValueError):
    """An argument is outside what the function accepts."""


class CheckpointError(SeedVR2Error):
    """A checkpoint file is damaged, is of an unsupported kind, or does not hold the expected model."""


class ModelFileError(SeedVR2Error):
    """A model file was not found, could not be downloaded, or failed its verification."""


class VideoError(SeedVR2Error):
    """A clip or picture could not be read."""


class OutputError(SeedVR2Error):
    """An output file could not be written."""


class EngineUnsupportedError(SeedVR2Error):
    """The kernels cannot run this model in this way on this GPU."""


class JobError(SeedVR2Error):
    """A job ended before all of its units were finished; those that were are kept."""


class DeviceMemoryError(SeedVR2Error):
    """A device has less free memory than the work takes."""


class KernelsError(SeedVR2Error):
    """A folder of compiled kernels could not be made, or is not to be used here."""
