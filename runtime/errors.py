"""What can go wrong with a bundle or a question to it. Each class has a stable `code`.

ZorroError
- BundleError
  - BundleNotFound       there is no bundle at the path
  - BundleCorrupt        a file is missing, or its bytes are not those that were written
  - BundleIncompatible   a schema or graph that this version does not read
- ProviderUnavailable    the execution provider that was asked for does not run here
- EngineCacheCorrupt     an engine that was kept has other bytes than when it was written
- SelfTestFailed         the golden clips get other answers than when the bundle was made
- InvalidOption          an option with a wrong value; the message says what was got and what is wanted
"""


class ZorroError(Exception):
    """The base of all; never raised itself."""

    code = "zorro_error"


class BundleError(ZorroError):
    """A bundle cannot be used."""

    code = "bundle_error"


class BundleNotFound(BundleError):
    """There is no bundle at the path."""

    code = "bundle_not_found"


class BundleCorrupt(BundleError):
    """A file is missing, or its bytes are not those that were written."""

    code = "bundle_corrupt"


class BundleIncompatible(BundleError):
    """A schema or graph that this version does not read."""

    code = "bundle_incompatible"


class ProviderUnavailable(ZorroError):
    """The execution provider that was asked for does not run here."""

    code = "provider_unavailable"


class EngineCacheCorrupt(ZorroError):
    """An engine that was kept has other bytes than when it was written."""

    code = "engine_cache_corrupt"


class SelfTestFailed(ZorroError):
    """The golden clips get other answers than when the bundle was made."""

    code = "self_test_failed"


class InvalidOption(ZorroError, ValueError):
    """An option has a value that is not allowed."""

    code = "invalid_option"
