"""Run the commands of `flask --app app` in tests."""

from flask import Flask


class Run:
    """Runs commands, and returns what they print."""

    def __init__(self, app: Flask) -> None:
        self.runner = app.test_cli_runner()

    def __call__(self, *args: str) -> str:
        done = self.runner.invoke(args=args)
        assert done.exit_code == 0, done.output
        return done.stdout

    def refused(self, *args: str, code: int = 1) -> str:
        """Run a command that must be refused, and return its error output: one line for code 1."""
        done = self.runner.invoke(args=args)
        assert isinstance(done.exception, SystemExit), done.exception
        assert (done.exit_code, done.stdout) == (code, "")
        assert code == 2 or len(done.stderr.splitlines()) == 1
        return done.stderr
