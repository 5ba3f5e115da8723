hide(Math, 'random', function random() { return host_random(); });
