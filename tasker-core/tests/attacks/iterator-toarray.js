// ends: memory
Iterator.from({next(){return {done:false,value:1}}}).toArray()
