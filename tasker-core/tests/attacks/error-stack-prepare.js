// ends: completed undefined
Error.prepareStackTrace=(e,s)=>{ for(;;){} }; new Error().stack
