"""What a model is told to keep to, and what it thinks of a text: the guard prompt and self-reflection of the paper.

guard        the system prompt of section 5.1, and where it goes
categories   what a text may be: the paper's short list and the longer one, in our own words
instruction  the message that asks for the category, with the text fenced in
answers      the categories as the tokens that a model would begin its answer with
reflect      the model's own probabilities for each category of a text (section 5.2)
policy       what is to happen to a text of each category
refusal      whether an answer declines, by its words
measure      how all of this does on public prompts; samples, curve and rates are its parts

The engine stands above: what needs a model takes a function.
"""
