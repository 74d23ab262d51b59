"""People, or a judge, choose between two models' answers to the same prompt without knowing whose they are.

answers        what each model says to each prompt
matches        which answers meet, which of them stands first, and who won
ballot         the votes on disk
bradley_terry  scores that explain the votes, and how sure they are
judge          a model behind OpenAI's protocol as the voter
page_server    the page on which a person votes
report         the table at the end
"""
