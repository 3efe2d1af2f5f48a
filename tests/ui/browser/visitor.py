"""A user with a browser, and the complaints of that browser."""

import re


class Visitor:
    """A user who is logged in.

    :param chromium: the browser.
    :param url: of the Airflow.
    :param token: of the user.
    :param dark: whether the user wants everything dark.
    :param forgiven: a regular expression for complaints that the test provokes.
    """

    def __init__(self, chromium, url, token, *, dark=False, forgiven=None):
        self._url = url
        self._forgiven = forgiven
        self._complaints = []
        self._context = chromium.new_context(
            viewport={"width": 1440, "height": 900},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
            locale="en-US",
            timezone_id="UTC",
        )
        self._context.add_cookies([{"name": "_token", "value": token, "url": url}])
        self._page = self._context.new_page()
        self._page.on("console", self._hear)
        self._page.on("pageerror", lambda error: self._complaints.append(f"error: {error}"))
        self._page.on("request", self._see)

    def _hear(self, message):
        if message.type == "error":
            self._complaints.append(f"console: {message.text} {message.location}")

    def _see(self, request):
        if not request.url.startswith((self._url, "data:", "blob:")):
            self._complaints.append(f"foreign: {request.url}")

    def open(self, path):
        """Go to a path of the Airflow."""
        self._page.goto(f"{self._url}/{path}")
        return self._page

    def close(self):
        """Close the window, and fail with the complaints of the browser."""
        self._context.close()
        complaints = [each for each in self._complaints if not (self._forgiven and re.search(self._forgiven, each))]
        assert [] == complaints
