"""`python -m rag_opt.llm`: a language model of this machine as an OpenAI-compatible endpoint, on this machine only.

Without more words SmolLM2-135M-Instruct, from its package; `llm=hf_local llm.model=FOLDER` serves another.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from rag_opt.cli.arguments import command_line
from rag_opt.console.terminal import sanitize_line
from rag_opt.errors import ConfigError
from rag_opt.system.same_origin import HOST

if TYPE_CHECKING:
    from rag_opt.components.llm.local import LocalChat


@command_line("llm", __doc__, ["llm=", "llm.model=", "store.path="], studies=False)
def main(
    words: Annotated[list[str] | None, Argument(help="of the configuration, such as llm.dtype=float32")] = None,
    port: Annotated[int, Option(help="0: any that is free")] = 8100,
) -> None:
    """The command line."""
    given = list(words or [])
    if not any(word.startswith("llm=") for word in given):
        given.insert(0, "llm=smollm2")
    # Before the model is loaded, so that a port that is taken is said at once.
    listening = _listen(port)
    print("rag_opt.llm: loading the model, which takes some seconds", flush=True)
    chat, model = load_chat(given)
    import uvicorn

    from rag_opt.cli.llm_server import build_app

    # With --port 0 the system has chosen.
    free = listening.getsockname()[1]
    url = f"http://{HOST}:{free}/v1"
    print(sanitize_line(f"serving {model}: {url}   (Ctrl-C ends it)"), flush=True)
    # llm.key=null, since the endpoint asks for none and a study would look for OPENAI_API_KEY.
    told = f"llm.base_url={url} llm.key=null llm.model={model} generator=llm"
    print(sanitize_line(f"study:  python -m rag_opt.study {told}"), flush=True)
    settings = uvicorn.Config(build_app(chat, model, free), log_level="warning", access_log=False)
    uvicorn.Server(settings).run(sockets=[listening])


def load_chat(words: list[str]) -> tuple[LocalChat, str]:
    """The model that these words of a configuration choose, loaded, and its name.

    Raises ConfigError for one that does not run here, ComponentError for one that can't be loaded.
    """
    from rag_opt.components.llm.local import LocalChat
    from rag_opt.config.compose import compose_config
    from rag_opt.config.trust import build, to_plain
    from rag_opt.evaluation.evaluator import build_resources

    config = compose_config(words)
    chat: Any = build(to_plain(config.llm.chat), to_plain(config.trusted_modules))
    if not isinstance(chat, LocalChat):
        raise ConfigError(f"{' '.join(words)}: it does not run here; choose llm=smollm2, or llm=hf_local")
    chat.use(build_resources(config))
    model = str(config.llm.model)
    try:
        chat.load(model)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return chat, model


def _listen(port: int) -> socket.socket:
    """A socket of this machine; raises ConfigError where it can't be had."""
    found = socket.socket()
    # Lets a new server have the port while connections of the last one linger in TIME_WAIT.
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((HOST, port))
    except (OSError, OverflowError) as error:
        # A port above 65535 is an OverflowError.
        found.close()
        raise ConfigError(f"--port {port}: can't be listened on: {error}; choose another, or 0 for any") from error
    return found
