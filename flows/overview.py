"""What `sgpo` can do: for people (`sgpo --help`), and for a shell that completes words (`sgpo --completion bash`)."""

from __future__ import annotations

from flows.commands import COMMANDS, about, parser_of


def shown(name: str) -> str:
    """A command's name as the shell has it."""
    return name.replace("_", "-")


def overview() -> str:
    """A line a command."""
    width = max(map(len, COMMANDS))
    lines = [f"  {shown(name):<{width}}  {about(name)}" for name in COMMANDS]
    return "\n".join(
        [
            "usage: sgpo COMMAND [arguments]",
            "",
            *lines,
            "",
            "sgpo COMMAND --help explains a command with all its settings. For the completion of commands, presets and",
            'options in bash: eval "$(sgpo --completion bash)"',
        ]
    )


def bash_completion() -> str:
    """A script that knows commands, presets and options; everything else is completed as a file."""
    cases = []
    for name, command in COMMANDS.items():
        words = [*(command.word.choices if command.word else ()), *parser_of(name, "").option_names()]
        cases.append(f"        {shown(name)}) words='{' '.join(words)}' ;;")
    commands = " ".join(map(shown, COMMANDS))
    return "\n".join(
        [
            "_sgpo() {",
            f"    local words='{commands}'",
            "    [ $COMP_CWORD -gt 1 ] && case ${COMP_WORDS[1]} in",
            *cases,
            "    esac",
            '    COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))',
            "}",
            "complete -o default -F _sgpo sgpo",
        ]
    )
