"""What bench/quality.py is made of: texts, scores, our files, the peers' files, answers, cost, bars and the plot."""
