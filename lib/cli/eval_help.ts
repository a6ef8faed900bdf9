export const EVAL_HELP = `
Sequential is lossless: the model as it was trained. A plan with groups is lossy, and the tables say what it costs.

On a text (--file), per plan: perplexity, with its standard error; KL(sequential || plan) of the next token, mean and 99th percentile
over all scored tokens, in nats; and how often both have the same most likely token. Protocols, never to be compared with each other:
  gptq      windows that do not overlap; all tokens but the first of each are scored. As cqil perplexity does.
  llamacpp  whole windows; the tokens after the middle one are scored; BOS in place of the first if the model uses it. As llama.cpp does.

On tasks (--task), per plan: the share of questions answered right, with its standard error. A line is one of
  {"query": "…", "choices": ["…", "…"], "gold": 0}                  gold: the index of the right choice
  {"context_options": ["…", "…"], "continuation": "…", "gold": 0}   which context the continuation follows
  {"context": "…", "continuation": "…"}                             right if every token of the continuation is the most likely one
and all lines of a file are alike. HellaSwag as text, six lines per question, is read too. The answer with the highest log-likelihood
counts for acc, the highest per character for acc_norm. nll is that of the right answer, in nats. The last row
is what always giving the answer that is right most often would achieve.

Stopped with Ctrl-C or otherwise, a run with --resume goes on with the next window or question when it is started again with the same
model, plans, text, protocol, window, tasks, delimiter, limit and seed.`;
