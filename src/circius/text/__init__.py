"""Text to tokens and back, and conversations to prompts.

tokenizer       what every tokenizer offers; sentencepiece, tokenizers_json and gguf_vocab are the three kinds
load            which file of a checkpoint holds the tokenizer
detokenize      tokens to text while they arrive
message         one message, and which conversations are valid
tools           functions that a model may call; tool_ids, tool_form, tool_prose and mistral_tools write them into
                prompts, tool_reader reads the calls in answers
chat            what every chat template offers; mistral (v1, v2, v3) and jinja_template are the two kinds
segments        a whole conversation in what is given and what is answered, for training
template_choice which template a model is used with
injection       keeping the text of a message from passing for the template's marks
export          writing a tokenizer beside converted weights; spm_to_json and mistral_jinja write new ones for others
"""

from circius.text.chat import ChatTemplate
from circius.text.detokenize import StreamDecoder
from circius.text.export import export_tokenizer, gguf_fields, write_byte_tokenizer
from circius.text.load import load_tokenizer
from circius.text.message import Message
from circius.text.template_choice import load_chat_template
from circius.text.tokenizer import Tokenizer, check_vocab
from circius.text.tools import Tool, ToolCall

__all__ = [
    "ChatTemplate",
    "Message",
    "StreamDecoder",
    "Tokenizer",
    "Tool",
    "ToolCall",
    "check_vocab",
    "export_tokenizer",
    "gguf_fields",
    "load_chat_template",
    "load_tokenizer",
    "write_byte_tokenizer",
]
