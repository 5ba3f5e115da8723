// ends: cpu
const it={[Symbol.iterator](){return this},next(){return {done:false,value:1}},return(){ for(;;){} }}; for(;;){ try{ for(const x of it) break }catch{} }
