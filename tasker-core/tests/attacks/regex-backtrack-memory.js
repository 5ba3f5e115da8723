// ends: memory
/(?:(a)|(b)|(c)|.)*?z/.exec('abc'.repeat(500000))
