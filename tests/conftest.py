"""Before anything else is imported: array shapes of the core are checked at run time, and hypothesis is repeatable."""

import hypothesis
import jaxtyping

jaxtyping.install_import_hook("worker.core", "beartype.beartype")
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")
