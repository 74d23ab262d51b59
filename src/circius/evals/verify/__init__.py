"""Is this checkpoint what it says it is, and does it compute what it should?

result       one check: what was found, what is allowed
facts        what real checkpoints are known to say, and reading such facts
compare      a model against one fact
recognise    which known checkpoint this is
laws         what holds for every model: chunks, cache, packing, numbers, generation
window_law   no key leaks past the window, layer by layer
text_law     tokenizer and chat template give back what they are given
perplexity   llama.cpp's protocol
verify       all of it
"""
