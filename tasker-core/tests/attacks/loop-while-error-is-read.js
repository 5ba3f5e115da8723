// ends: cpu
throw { get name() { for (;;); }, get stack() { for (;;); } };
