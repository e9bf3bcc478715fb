"""What the Python suites share: how a cluster is reached, and how verdicts are said.

A case is a function that raises when it fails. Each is run once and reported on a line of its own;
the program that reads the lines counts them.
"""

import os
import sys
import time
import traceback

PATIENCE = 30


class Access:
    """How the cluster is reached, from the environment."""

    def __init__(self):
        self.host, port = os.environ["ENDPOINTS"].split(",")[0].split(":")
        self.port = int(port)
        self.members = int(os.environ["MEMBERS"])
        self.progress = int(os.environ["PROGRESS_MS"]) / 1000
        self.authority = os.environ.get("CA")
        self.certificate = os.environ.get("CERT"), os.environ.get("KEY")
        self.bare_certificate = os.environ.get("BARE_CERT"), os.environ.get("BARE_KEY")
        self.root_password = os.environ.get("ROOT_PASSWORD")
        self.user = os.environ.get("USER_NAME"), os.environ.get("USER_PASSWORD")
        self.tls = self.authority is not None
        self.users = self.root_password is not None
        self.root = ("root", self.root_password) if self.users else (None, None)

    def chosen(self, common, login, named):
        """The cases of this setting."""
        return common + (login if self.users else []) + (named if self.users and self.tls else [])


def restart():
    """Have the first member killed, and started again."""
    print("restart")
    if sys.stdin.readline() != "done\n":
        raise RuntimeError("the member did not come back")


def passed(case):
    print("ok", case.__name__)


def failed(case, error):
    traceback.print_exception(error)
    # One line; the trace has the rest.
    print(f"FAILED {case.__name__}: {type(error).__name__} {error} {getattr(error, 'detail_text', '')}".replace("\n", " "))


def run(cases):
    for case in cases:
        try:
            case()
        except Exception as error:
            failed(case, error)
        else:
            passed(case)
    print("end")


def equal(got, want):
    if got != want:
        raise AssertionError(f"got {got!r}, want {want!r}")


def true(what, value):
    if not value:
        raise AssertionError(f"not so: {what}")


def raises(kind, call, text=""):
    """The error of a call that must fail so."""
    try:
        call()
    except kind as error:
        if text not in str(error):
            raise AssertionError(f"got {error}, want {text}") from error
        return error
    raise AssertionError(f"no {kind.__name__}")


def eventually(what, holds):
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        true(f"{what}, in time", time.monotonic() < deadline)
        time.sleep(0.02)
