// ends: memory
// fill the heap with ballast, then release it a little at a time, running OOM-fragile operations at every level
const ballast=[]; let n=0, e=0;
const A=()=>{ class A { #p=1; static s=1; get p(){ return this.#p } } new A().p };
const ops=[ A,
 ()=>{ new Function('a','return a+1')(1) }, ()=>{ JSON.parse('{"x":[1,2,{"y":"z"}]}') }, ()=>{ /(?<y>\d+)/.exec('a12').groups.y },
 ()=>{ Promise.allSettled([Promise.reject(1)]) }, ()=>{ (async()=>{ await 1 })() }, ()=>{ new Proxy({}, {}) }, ()=>{ new Map([[1,2]]) }, ()=>{ Object.groupBy([1,2],x=>x) },
 ()=>{ eval('let q=1;q') }, ()=>{ new Error('x').stack }, ()=>{ new FinalizationRegistry(()=>{}).register({},1) },
 ()=>{ new WeakRef({}) }, ()=>{ (function*(){ yield* [1] })().next() }, ()=>{ [1,2].map(x=>[x]) }, ()=>{ `a${n}b`.normalize('NFKD') },
 ()=>{ (async function*(){ yield 1 })().next() }, ()=>{ new Promise(r=>r(1)).then(()=>1).finally(()=>1) }, ()=>{ 'abc'.replace(/(b)/g,(m)=>m+n) }, ()=>{ JSON.stringify({a:[{b:n}]}) },
 ()=>{ (2n**200n*3n/7n).toString() }, ()=>{ Reflect.ownKeys(globalThis) }, ()=>{ [3,1,2].toSorted() }, ()=>{ Promise.all([1,2]) }, ()=>{ Promise.any([1]) }, ()=>{ Promise.race([1]) },
];
ballast.length=20000; let top=0;
function fill(sz){ try { for(;;){ ballast[top]=new Uint8Array(sz); top++ } } catch {} }
fill(1<<20); fill(1<<16); fill(1<<12); fill(512); fill(64); fill(8);
for (let i=0;i<6000 && top>0;i++){ for(let j=0;j<ops.length;j++){ try { ops[j](); n++ } catch { e++ } } if(i%3==0){ ballast[--top]=undefined } }
globalThis.__n=n+'/'+e; ballast.length=0; __n
