#include <stdint.h>
#include <stddef.h>
/* heapsort, in place */
void heap_sort(uint64_t*a,size_t n){
 size_t start=n/2,end=n;
 while(end>1){
  uint64_t v;
  if(start>0){start--;v=a[start];}else{end--;v=a[end];a[end]=a[0];}
  size_t root=start;
  for(;;){
   size_t child=2*root+1;
   if(child>=end)break;
   if(child+1<end&&a[child]<a[child+1])child++;
   if(a[child]<=v)break;
   a[root]=a[child];root=child;
  }
  a[root]=v;
 }
}
/* insertion sort */
void insertion_sort(uint32_t*a,size_t n){
 for(size_t i=1;i<n;i++){uint32_t v=a[i];size_t j=i;while(j>0&&a[j-1]>v){a[j]=a[j-1];j--;}a[j]=v;}
}
