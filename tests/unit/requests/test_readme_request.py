"""The request that the README shows works as it stands once the demo has put its sample into the inbox."""

import re
from pathlib import Path

from libs.requests.inbox.inbox import Inbox
from libs.requests.inbox.submission import plan_submission, upload
from libs.sandbox.request import SAMPLE_REQUEST_ID, write_sample_request
from libs.settings import REPOSITORY_ROOT
from libs.storage.backends.folder import FolderObjectStore


def test_the_request_of_the_readme_can_be_handed_in_after_the_demo(tmp_path: Path) -> None:
    text = (REPOSITORY_ROOT / "README.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    document = tmp_path / "my-clip.yaml"
    document.write_text(re.sub(r"^   ", "", example, flags=re.MULTILINE))
    inbox = Inbox(FolderObjectStore(tmp_path / "store"))
    sample = tmp_path / "sample"
    sample.mkdir()
    write_sample_request(sample)
    inbox.put_folder(sample)

    plan = plan_submission([document], inbox)
    upload(plan, inbox)
    (request,) = plan.submissions["my-clip.yaml"].requests
    assert (request.id, request.model) == ("my-clip", "sandbox")
    assert request.id != SAMPLE_REQUEST_ID
    assert not plan.media  # both lie in the inbox already
