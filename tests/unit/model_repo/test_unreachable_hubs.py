"""A hub that does not answer: the error says what to check."""

import httpx2
import pytest
from modelscope_hub.errors import NetworkError

from libs.errors import HubUnavailableError
from libs.model_repo.hubs import huggingface, modelscope


def test_the_error_names_the_settings_to_check() -> None:
    expected = "HTTPS_PROXY and MODEL_HUB_ENDPOINT, or try the other hub"
    with pytest.raises(HubUnavailableError, match=expected), modelscope._errors_of("One-to-All-14b"):
        raise NetworkError("refused")
    with pytest.raises(HubUnavailableError, match=expected), huggingface._errors_of("One-to-All-14b"):
        raise httpx2.ConnectError("refused")
