// ends: cpu
const {resolve}=Promise.withResolvers(); for(;;){ const d=Promise.withResolvers(); d.resolve({get then(){ for(;;){} }}) }
