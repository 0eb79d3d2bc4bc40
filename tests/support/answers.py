"""Texts as models answer them, for tests that try many."""

from hypothesis import strategies as st

from harness.scoring.text.tokenization import tokenize_text

# Scripts, punctuation, spaces and emoji meet in one answer more often than in random Unicode.
ANSWERS = st.text(st.sampled_from("小柴胡颗粒一日3次。，、0.5gabcDE the-an \n\t😀👍🏽é①％"), max_size=40) | st.text(
    max_size=20
)
WORDY = ANSWERS.filter(lambda text: len(tokenize_text(text, "mixed")) > 0)
