// ends: cpu
for(;;){ Promise.try(()=>{ for(;;){} }) }
