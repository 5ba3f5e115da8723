// ends: cpu
const s='ab'.repeat(3000000); s.lastIndexOf('ab'.repeat(1500000)+'c')
