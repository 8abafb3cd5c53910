"""The one place where the URLs of the matrix stand: a name, and a function from a test's directory to a URL to listen
on. A backend joins the matrix with a line here."""

URLS = {
    "qmux+tcp": lambda directory: "qmux+tcp://127.0.0.1:0",
    "qmux+unix": lambda directory: f"qmux+unix://{directory}/m.sock",
    "h2c": lambda directory: "h2c://127.0.0.1:0",
}

# For each of them, a URL that nobody listens on.
REFUSING = {
    "qmux+tcp": lambda directory: "qmux+tcp://127.0.0.1:1",
    "qmux+unix": lambda directory: f"qmux+unix://{directory}/nobody.sock",
    "h2c": lambda directory: "h2c://127.0.0.1:1",
}
