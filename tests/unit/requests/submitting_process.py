"""A process that hands in requests when it is told to: ``python submitting_process.py FOLDER``, store from environment.

For each line on standard input, the name of a folder below ``FOLDER``, it submits the documents there, and answers with
``submitted`` or the error.
"""

import sys
from pathlib import Path

from libs.errors import InputError
from libs.requests.inbox.inbox import Inbox
from libs.requests.inbox.submission import plan_submission, upload
from libs.settings import load_settings
from libs.storage.backends.factory import objects_from_settings


def main() -> None:
    inbox = Inbox(objects_from_settings(load_settings()))
    inbox.documents()  # whatever is slow the first time, is done
    print("ready", flush=True)
    for line in sys.stdin:
        folder = Path(sys.argv[1]) / line.strip()
        try:
            upload(plan_submission(sorted(folder.glob("*.yaml")), inbox), inbox)
        except InputError as error:
            print(str(error).replace("\n", " "), flush=True)
        else:
            print("submitted", flush=True)


if __name__ == "__main__":
    main()
