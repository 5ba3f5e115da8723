// ends: cpu
Error.prepareStackTrace=(e,s)=>{ for(;;){} }; for(;;) { new Error() }
