"""Opens uploaded artifacts where they can do no harm: in a child process without secrets and with limits on memory,
CPU, time and files, which is thrown away afterwards. Knows nothing of the registry's tables or contracts."""

from services.registry.validation.conversion import Told
from services.registry.validation.parent import limits, validate
from services.registry.validation.report import File, Finding, Limits, Report, Tensor, Text
from services.registry.validation.trying import Samples

__all__ = ["File", "Finding", "Limits", "Report", "Samples", "Tensor", "Text", "Told", "limits", "validate"]
