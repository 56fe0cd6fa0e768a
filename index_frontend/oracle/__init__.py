"""The bot's word: documents, decisions, the change stream, and what of it is valid now without asking."""

from index_frontend.oracle.bot import HttpBot
from index_frontend.oracle.link import BotAway, BotBroken, BotLink, PageAnswer
from index_frontend.oracle.public import PublicPage, PublicPages
from index_frontend.oracle.questions import Patience
from index_frontend.oracle.word import BotOracle

__all__ = [
    "BotAway",
    "BotBroken",
    "BotLink",
    "BotOracle",
    "HttpBot",
    "PageAnswer",
    "Patience",
    "PublicPage",
    "PublicPages",
]
