// ends: cpu
const a=[1]; a.length=2**32-2; a.reverse()
